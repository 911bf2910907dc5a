"""The Hub and its cache: fetches, verifies and pushes files. Errors name their true cause."""
