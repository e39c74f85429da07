echo "main"
echo value=kept >> "$GITHUB_OUTPUT"
exit 3
