echo "post [$STATE_first] [$STATE_word]"
