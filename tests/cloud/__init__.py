"""The workflow with S3 and Kubernetes. Both are stand-ins on this machine."""
