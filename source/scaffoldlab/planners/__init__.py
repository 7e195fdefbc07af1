"""Who plans: the scripted oracle, a vision-language model, or its recorded replies."""
