"""Networks, the specification of a trained model, and its loading. Only the modules that need torch import it."""
