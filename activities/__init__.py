"""What touches the world: clusters, stores, decisions. An activity acts; it never decides what to do next."""
