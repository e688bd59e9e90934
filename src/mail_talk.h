/*
 * mail_talk.h
 *		What is said to a mail server once it has let us in, and what its replies
 *		mean.
 *
 * libcurl connects, secures the connection and signs in, without ever waiting.
 * It would hand over a mail too, but waits for the server's last reply with
 * everything else at a standstill (seen in 7.88), and a server may take a minute
 * to look into a mail.  So this part is ours: some lines, a reply to each.
 *
 * A leaf: no sockets, no clock, no memory but the caller's.
 */
#ifndef RETRY_MAIL_TALK_H
#define RETRY_MAIL_TALK_H

#include <stddef.h>

#define RETRY_MAIL_SAID		512 /* bytes kept of a reply */
#define RETRY_MAIL_REPLY	16384	/* bytes of a reply that are read */

typedef enum RetryMailEnd
{
	RETRY_MAIL_TALKING,
	RETRY_MAIL_TAKEN,			/* the server has the mail, and answers for it */
	RETRY_MAIL_REFUSED,			/* it said no, see code */
	RETRY_MAIL_NONSENSE			/* what it said is no reply to that */
} RetryMailEnd;

typedef struct RetryMailTalk
{
	const char *script;			/* what is not said yet, of the script */
	size_t		script_len;
	const char *mail;			/* after it; NULL: has been said */
	size_t		mail_len;
	const char *out;			/* to be sent now; the caller moves it on */
	size_t		out_len;
	bool		begun;			/* the mail itself is out, or on its way */
	RetryMailEnd end;

	int			code;			/* of the last whole reply; 0: there was none */
	char		said[RETRY_MAIL_SAID];	/* its lines, blanks between, control
										 * characters and what is no ASCII as
										 * ? */

	/* the reply that is coming */
	char		line[4];		/* how its line begins */
	int			line_len;
	size_t		reply_len;
	size_t		said_len;
	bool		fresh;			/* its first byte is still to come */
} RetryMailTalk;

/*
 * Begins with the first line of the script, as retry_mail_write() has written
 * it.  Both texts must stay.
 */
extern void retry_mail_talk_begin(RetryMailTalk *talk, const char *script, size_t script_len,
								  const char *mail, size_t mail_len);

/*
 * What the server has sent, in any pieces.  After each call "out" is what is to
 * be sent, if anything is left of it, and "end" says whether the talk is over;
 * then "out" may be sent too, and no reply needs to be awaited.
 */
extern void retry_mail_talk_hear(RetryMailTalk *talk, const char *bytes, size_t len);

/* Adds a piece of a reply to those kept in a buffer of RETRY_MAIL_SAID bytes. */
extern void retry_mail_keep(char *said, size_t *said_len, const char *piece, size_t len);

#endif							/* RETRY_MAIL_TALK_H */
