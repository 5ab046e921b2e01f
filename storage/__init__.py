r"""Models from S3, OBS, the Hugging Face Hub and mounted volumes: atomic downloads that resume after a kill.

    kthena-downloader (cli)      the runtime
            \                    /
             supervisor: jobs, one child process per download (docs/adr/0009)
                       |  request as JSON on stdin, events as JSON on stdout
             worker: lock, list, compare, check space, fetch, verify, publish
                       |
             sources/{s3,hub} -> transfer: range requests        sources/volume: copies

Modules that the runtime imports (request, supervisor, errors, disk) never import botocore or huggingface_hub. These
libraries run in the worker only, which limits its own memory (`storage.memory`, docs/adr/0017).
"""
