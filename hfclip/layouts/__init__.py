"""The layouts of hfclip, open_clip, transformers and OpenAI: their files and configurations."""
