echo set up > /etc/set-up
