/*
 * fuzz_mail_talk.c
 *		Anything as what a mail server says.
 *
 * Whatever it says and in whatever pieces, our side says its lines in their
 * order, each at most once, and the mail only behind all of them; whether a line
 * comes whole or byte by byte makes no difference; and who answers before he was
 * asked gets no mail.
 */
#include "postgres.h"

#include "../../src/mail_talk.h"

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

#define MUST(condition) do { if (!(condition)) __builtin_trap(); } while (0)

#define SCRIPT "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
#define MAIL "Subject: x\r\n\r\n.\r\n"
#define ALL SCRIPT MAIL "QUIT\r\n"

/* Hears it in pieces of so many bytes, or line by line when that is 0. */
static void
hear(RetryMailTalk *talk, const char *bytes, size_t size, size_t piece, char *said)
{
	size_t		at = 0;
	size_t		len;

	*said = '\0';
	retry_mail_talk_begin(talk, SCRIPT, strlen(SCRIPT), MAIL, strlen(MAIL));
	for (;;)
	{
		MUST(talk->out_len == 0 || strlen(said) + talk->out_len < sizeof(ALL));
		strncat(said, talk->out != NULL ? talk->out : "", talk->out_len);
		talk->out_len = 0;
		if (at == size || talk->end != RETRY_MAIL_TALKING)
			break;
		len = Min(piece, size - at);
		if (piece == 0)
		{
			const char *end = memchr(bytes + at, '\n', size - at);

			len = end != NULL ? (size_t) (end + 1 - bytes) - at : size - at;
		}
		retry_mail_talk_hear(talk, bytes + at, len);
		at += len;
	}
	MUST(strlen(talk->said) < RETRY_MAIL_SAID);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	RetryMailTalk one;
	RetryMailTalk two;
	char		said[sizeof(ALL)];
	char		again[sizeof(ALL)];
	size_t		without;

	hear(&one, (const char *) data, size, 1, said);
	without = strlen(said);
	if (one.end != RETRY_MAIL_TALKING && without >= 6 && strcmp(said + without - 6, "QUIT\r\n") == 0)
		without -= 6;
	MUST(strncmp(said, SCRIPT MAIL, without) == 0);
	MUST(one.end != RETRY_MAIL_TAKEN || strcmp(said, ALL) == 0);
	MUST(one.end != RETRY_MAIL_REFUSED || (one.code >= 400 && one.code < 600));
	hear(&two, (const char *) data, size, 0, again);
	MUST(two.end == one.end && two.code == one.code && strcmp(two.said, one.said) == 0 && strcmp(again, said) == 0);
	hear(&two, (const char *) data, size, Max(size, 1), again);
	MUST(two.end != RETRY_MAIL_TAKEN);
	return 0;
}
