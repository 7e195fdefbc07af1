"""Who plans: the scripted oracle, a perturbed one, a vision-language model, or its recorded replies."""
