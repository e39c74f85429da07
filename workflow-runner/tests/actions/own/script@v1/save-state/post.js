echo "post $STATE_word"
