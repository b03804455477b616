"""The process that runs on each cluster: settings, health gates, watches, task queues, metrics."""
