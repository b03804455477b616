"""Stand-ins for what cannot run on one machine: storage array, dr-cluster operator, GitOps."""
