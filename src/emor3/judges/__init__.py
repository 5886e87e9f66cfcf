"""Who answers the two questions of reflection, and how well."""
