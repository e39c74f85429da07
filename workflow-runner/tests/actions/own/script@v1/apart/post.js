echo "post [$STATE_mine]"
