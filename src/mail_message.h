/*
 * mail_message.h
 *		A mail: what it is made from, its text, and the envelope it travels in.
 *
 * What an alarm says comes from many places (names of scenes, answers of
 * receivers, people's descriptions), and none of it may become a header, an
 * address or a command to the mail server.  So whatever is put into a mail goes
 * through here, where each piece is encoded for its place.
 *
 * A leaf: no errors raised, no clock, no tables, no memory but the caller's.
 */
#ifndef RETRY_MAIL_MESSAGE_H
#define RETRY_MAIL_MESSAGE_H

#include <stddef.h>

#define RETRY_MAILBOX_ADDRESS	254 /* bytes of local@domain */
#define RETRY_MAILBOX_NAME		200 /* bytes of the name before it */

/* "Ada <ada@example.com>", taken apart; both point into the text. */
typedef struct RetryMailbox
{
	const char *name;
	size_t		name_len;		/* 0: none */
	const char *address;
	size_t		address_len;
} RetryMailbox;

/*
 * Reads local@domain, or a name and that in <>.  Only what every mail server
 * takes: ASCII in the address, no quoted local part, no comments; a name is any
 * UTF-8 without control characters.  False, with why not, else.
 */
extern bool retry_mailbox_parse(const char *text, RetryMailbox *mailbox, char *err, size_t err_size);

/* Members of the JSON object that a task of mail has as its body. */
typedef struct RetryMailFields
{
	char	   *to;				/* NULL: all recipients */
	char	   *subject;
	char	   *text;
} RetryMailFields;

/*
 * Reads such an object, whose members are strings: subject, text, and to, which
 * may be missing.  They are terminated and lie in "room", of body_len + 3 bytes at
 * least.  False, with a constant sentence in *why, when it is anything else.
 */
extern bool retry_mail_fields(const char *body, size_t body_len, char *room,
							  RetryMailFields *fields, const char **why);

typedef struct RetryMail
{
	const char *from;			/* mailboxes as above, which can be read */
	const char *const *to;		/* all that are told, for the reader */
	int			to_count;
	const char *only;			/* the one of them that gets it; NULL: all */
	const char *subject;		/* UTF-8; control characters become blanks */
	const char *text;			/* UTF-8, of any lines */
	const char *id;				/* the same whenever it is sent again;
								 * letters, digits, "-" and "." */
	int64		unix_time;		/* likewise */
} RetryMail;

/* So many bytes are enough for it. */
extern size_t retry_mail_room(const RetryMail *mail);

/*
 * Writes first the commands of the envelope, a line each (MAIL, RCPT for each
 * recipient, DATA), and then the mail itself with the line of one dot at its end,
 * ready to be sent.  Lines end in CR LF and have 78 bytes at most, but for those
 * with long addresses; all bytes are ASCII.  Returns the length of the whole,
 * *script_len that of the commands; 0 when a mailbox cannot be read.
 */
extern size_t retry_mail_write(const RetryMail *mail, char *out, size_t *script_len);

#endif							/* RETRY_MAIL_MESSAGE_H */
