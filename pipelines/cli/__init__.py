"""The commands of `interavatar`; nothing else imports them."""
