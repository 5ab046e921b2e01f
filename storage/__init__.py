r"""Models from S3, OBS, the Hugging Face Hub and mounted volumes, with guarantees.

    kthena-downloader (cli)      the runtime
            \                    /
             jobs: a supervisor, a child process for each download
                       |  request on stdin, events on stdout
             worker -> download: lock, plan, space, fetch, verify, publish
                       |
             fetch/{s3,huggingface} -> ranges: the byte engine       fetch/pvc

What the runtime imports (jobs, source, errors, layout) knows nothing of botocore
and huggingface_hub, which live and die in the child. The child limits its own memory (memory).
"""
