"""Deterministic orchestration: one file per workflow, each reads like the runbook that it replaces."""
