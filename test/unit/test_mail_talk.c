/*
 * test_mail_talk.c
 *		Unit test of the talk with a mail server.
 */
#include "postgres.h"

#include "../../src/mail_talk.h"
#include "check.h"

#define SCRIPT "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
#define MAIL "Subject: x\r\n\r\n.\r\n"
#define OK "250 ok\r\n"

/*
 * What is said to these replies, one after the other, with "|" after each piece;
 * replies come in pieces of so many bytes.
 */
static const char *
said_to(RetryMailTalk *talk, const char *replies, size_t piece)
{
	static char said[1000];

	said[0] = '\0';
	retry_mail_talk_begin(talk, SCRIPT, strlen(SCRIPT), MAIL, strlen(MAIL));
	for (;;)
	{
		if (talk->out_len > 0)
		{
			strncat(said, talk->out, talk->out_len);
			strcat(said, "|");
			talk->out += talk->out_len;
			talk->out_len = 0;
		}
		if (*replies == '\0' || talk->end != RETRY_MAIL_TALKING)
			return said;
		piece = Min(piece, strlen(replies));
		retry_mail_talk_hear(talk, replies, piece);
		replies += piece;
	}
}

static void
test_good(void)
{
	RetryMailTalk talk;

	for (size_t piece = 1; piece < 40; piece += 6)
	{
		CHECK_STR(said_to(&talk, "250 ok\r\n250-ok\r\n250-more\r\n250\r\n354 go\r\n250 2.0.0 taken\r\n", piece > 7 ? 7 : piece),
				  "MAIL FROM:<a@b>\r\n|RCPT TO:<c@d>\r\n|DATA\r\n|Subject: x\r\n\r\n.\r\n|QUIT\r\n|", "a mail is taken");
		CHECK(talk.end == RETRY_MAIL_TAKEN && talk.code == 250 && talk.begun, "and it is known");
		CHECK_STR(talk.said, "250 2.0.0 taken", "with what was said");
	}
	said_to(&talk, "250 ok\r\n251 ok\n354 go\n", 7);
	CHECK(talk.end == RETRY_MAIL_TALKING && talk.begun, "half-way, with bare line feeds");
}

static void
test_bad(void)
{
	static const struct
	{
		const char *replies;
		RetryMailEnd end;
		int			code;
		const char *said;
	}			cases[] = {
		{"550-no\r\n550 never\r\n", RETRY_MAIL_REFUSED, 550, "550-no 550 never"},
		{OK "451 later\r\n", RETRY_MAIL_REFUSED, 451, "451 later"},
		{OK OK "554 no\r\n", RETRY_MAIL_REFUSED, 554, "554 no"},
		{OK OK "354 go\r\n552 too much\x01\xff\r\n", RETRY_MAIL_REFUSED, 552, "552 too much??"},
		{"354 go\r\n", RETRY_MAIL_NONSENSE, 354, "354 go"},
		{OK OK OK, RETRY_MAIL_NONSENSE, 250, "250 ok"},
		{"150 ok\r\n", RETRY_MAIL_NONSENSE, 150, "150 ok"},
		{"334 ok\r\n", RETRY_MAIL_NONSENSE, 334, "334 ok"},
		{"hello\r\n", RETRY_MAIL_NONSENSE, 0, "hello"},
		{"25\r\n", RETRY_MAIL_NONSENSE, 0, "25"},
		{"2500 ok\r\n", RETRY_MAIL_NONSENSE, 0, "2500 ok"},
		{"999 ok\r\n", RETRY_MAIL_NONSENSE, 0, "999 ok"},
		{"\r\n", RETRY_MAIL_NONSENSE, 0, ""},
	};
	RetryMailTalk talk;
	char	   *endless = malloc(RETRY_MAIL_REPLY + 10);

	for (int i = 0; i < lengthof(cases); i++)
	{
		said_to(&talk, cases[i].replies, 2);
		CHECK(talk.end == cases[i].end && talk.code == cases[i].code && strcmp(talk.said, cases[i].said) == 0,
			  "reply %d: %s", i + 1, talk.said);
	}

	/* a server that says more than was asked: what is not sent yet stays unsaid */
	retry_mail_talk_begin(&talk, SCRIPT, strlen(SCRIPT), MAIL, strlen(MAIL));
	retry_mail_talk_hear(&talk, "250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n", 36);
	CHECK(talk.end == RETRY_MAIL_NONSENSE && talk.out_len == 0, "replies before anything was asked");

	memset(endless, 'x', RETRY_MAIL_REPLY + 9);
	endless[RETRY_MAIL_REPLY + 9] = '\0';
	said_to(&talk, endless, 1000);
	CHECK(talk.end == RETRY_MAIL_NONSENSE && strlen(talk.said) == RETRY_MAIL_SAID - 1, "an endless reply");
	free(endless);
}

int
main(void)
{
	test_good();
	test_bad();
	return check_done();
}
