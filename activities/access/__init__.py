"""Gateways to Kubernetes and S3: the only package that imports their clients and maps their errors."""
