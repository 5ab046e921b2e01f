"""kthena-downloader: downloads for init containers and terminals."""
