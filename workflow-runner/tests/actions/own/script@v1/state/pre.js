echo first=pre >> "$GITHUB_STATE"
echo word=pre >> "$GITHUB_STATE"
