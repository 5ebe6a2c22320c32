"""Files as people have them, made small: each kind in many variants, with what must come out of it."""
