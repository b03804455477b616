"""A playground on one machine: real control planes, real Temporal, real S3, and stand-ins for the rest."""
