"""S3 and OBS."""
