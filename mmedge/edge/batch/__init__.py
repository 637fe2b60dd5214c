"""Many scenes: the journal, the workers, and who may write where."""
