"""kthena-downloader: downloads in init containers and on terminals."""
