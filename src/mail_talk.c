/*
 * mail_talk.c
 *		What is said to a mail server once it has let us in, and what its replies
 *		mean.
 *
 * One line, one reply (RFC 5321): 354 to DATA, 2xx to all else.  Anything else
 * ends the talk, so that a mail is handed over to all recipients of its envelope
 * or to none.
 */
#include "postgres.h"

#include "mail_talk.h"

static const char goodbye[] = "QUIT\r\n";

/* Says the next line of the script, or the mail behind it. */
static void
say_next(RetryMailTalk *talk)
{
	const char *end;

	if (talk->script_len == 0)
	{
		talk->out = talk->mail;
		talk->out_len = talk->mail_len;
		talk->mail = NULL;
		talk->begun = true;
		return;
	}
	end = memchr(talk->script, '\n', talk->script_len);
	talk->out = talk->script;
	talk->out_len = end != NULL ? (size_t) (end + 1 - talk->script) : talk->script_len;
	talk->script += talk->out_len;
	talk->script_len -= talk->out_len;
}

static void
end_talk(RetryMailTalk *talk, RetryMailEnd end)
{
	/* in the middle of the mail it would be part of that */
	bool		polite = talk->out_len == 0;

	talk->end = end;
	talk->out = polite ? goodbye : NULL;
	talk->out_len = polite ? strlen(goodbye) : 0;
}

void
retry_mail_talk_begin(RetryMailTalk *talk, const char *script, size_t script_len,
					  const char *mail, size_t mail_len)
{
	memset(talk, 0, sizeof(*talk));
	talk->script = script;
	talk->script_len = script_len;
	talk->mail = mail;
	talk->mail_len = mail_len;
	talk->fresh = true;
	say_next(talk);
}

void
retry_mail_keep(char *said, size_t *said_len, const char *piece, size_t len)
{
	for (size_t i = 0; i < len && *said_len < RETRY_MAIL_SAID - 1; i++)
		said[(*said_len)++] = piece[i] == '\r' || piece[i] == '\n' ? ' ' :
			piece[i] < ' ' || piece[i] > '~' ? '?' : piece[i];
	said[*said_len] = '\0';
}

/* A whole reply is here. */
static void
answer(RetryMailTalk *talk)
{
	bool		to_data = talk->script_len == 0 && talk->mail != NULL;

	talk->fresh = true;
	if (talk->code >= 400)
		end_talk(talk, RETRY_MAIL_REFUSED);
	else if (talk->out_len > 0 || (talk->code == 354) != to_data || (talk->code != 354 && talk->code >= 300) || talk->code < 200)
		end_talk(talk, RETRY_MAIL_NONSENSE);
	else if (talk->mail == NULL)
		end_talk(talk, RETRY_MAIL_TAKEN);
	else
		say_next(talk);
}

/* The line is over: "250-more", "250 last" or "250". */
static void
end_line(RetryMailTalk *talk)
{
	const char *line = talk->line;
	int			code = 0;
	bool		good = talk->line_len >= 3 && line[0] >= '1' && line[0] <= '5';

	for (int i = 0; good && i < 3; i++)
	{
		good = line[i] >= '0' && line[i] <= '9';
		code = code * 10 + (line[i] - '0');
	}
	good = good && (talk->line_len == 3 || line[3] == ' ' || line[3] == '-');
	if (!good)
	{
		end_talk(talk, RETRY_MAIL_NONSENSE);
		return;
	}
	talk->code = code;
	if (talk->line_len > 3 && line[3] == '-')
		retry_mail_keep(talk->said, &talk->said_len, " ", 1);
	else
		answer(talk);
	talk->line_len = 0;
}

void
retry_mail_talk_hear(RetryMailTalk *talk, const char *bytes, size_t len)
{
	for (size_t i = 0; i < len && talk->end == RETRY_MAIL_TALKING; i++)
	{
		char		c = bytes[i];

		if (talk->fresh)
		{
			talk->fresh = false;
			talk->code = 0;
			talk->reply_len = talk->said_len = 0;
			talk->said[0] = '\0';
			talk->line_len = 0;
		}
		if (++talk->reply_len > RETRY_MAIL_REPLY)
			end_talk(talk, RETRY_MAIL_NONSENSE);
		else if (c == '\n')
			end_line(talk);
		else if (c != '\r')
		{
			if (talk->line_len < (int) sizeof(talk->line))
				talk->line[talk->line_len++] = c;
			retry_mail_keep(talk->said, &talk->said_len, &c, 1);
		}
	}
}
