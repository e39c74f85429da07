echo "post fails"
exit 4
