"""What is anatomically there: components, centrelines, repair, fusion (numpy world)."""
