[ "$0" = "$GITHUB_ACTION_PATH/lib/main.js" ] && echo "its file"
[ "$PWD" = "$GITHUB_WORKSPACE" ] && echo "in the workspace"
echo "$GITHUB_ACTION_REPOSITORY $GITHUB_ACTION_REF"
echo value=42 >> "$GITHUB_OUTPUT"
