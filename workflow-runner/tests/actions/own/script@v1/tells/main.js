echo "main $INPUT_NAME [$STATE_first]"
echo "second=$INPUT_NAME" >> "$GITHUB_STATE"
