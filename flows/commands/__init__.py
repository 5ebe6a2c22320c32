"""The commands of ``teramito``, grouped by what they work on."""
