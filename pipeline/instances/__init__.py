"""From two probability maps to instances: labels a block, joined, grown, selected, numbered, measured."""
