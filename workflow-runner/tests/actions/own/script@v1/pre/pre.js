echo "pre"
echo SET_BEFORE=pre >> "$GITHUB_ENV"
