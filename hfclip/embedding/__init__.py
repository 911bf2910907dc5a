"""Embeds collections: a plan, parts as Parquet files, and the pipeline that fills them."""
