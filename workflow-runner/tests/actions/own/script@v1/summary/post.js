echo post >> "$GITHUB_STEP_SUMMARY"
