"""Every option of every stage: key, default, unit, range and effect (standard library only)."""
