echo "main [$STATE_first] [$STATE_word]"
echo word=main >> "$GITHUB_STATE"
