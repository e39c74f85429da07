echo main >> "$GITHUB_STEP_SUMMARY"
