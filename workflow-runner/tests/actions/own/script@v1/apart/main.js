echo "main [$STATE_mine]"
echo "mine=$INPUT_NAME" >> "$GITHUB_STATE"
