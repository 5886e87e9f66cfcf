"""Who answers the two questions of reflection: the policy, another local model, vLLM or a chat server."""
