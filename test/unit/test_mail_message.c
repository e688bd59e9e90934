/*
 * test_mail_message.c
 *		Unit test of mails: addresses, bodies of tasks, headers and lines.
 */
#include "postgres.h"

#include "../../src/mail_message.h"
#include "check.h"

static bool
reads(const char *text, const char *name, const char *address)
{
	RetryMailbox box;
	char		err[256];

	return retry_mailbox_parse(text, &box, err, sizeof(err)) &&
		box.name_len == strlen(name) && strncmp(name, box.name != NULL ? box.name : "", box.name_len) == 0 &&
		box.address_len == strlen(address) && memcmp(box.address, address, box.address_len) == 0;
}

static const char *
refusal(const char *text)
{
	static char err[256];
	RetryMailbox box;

	return retry_mailbox_parse(text, &box, err, sizeof(err)) ? "" : err;
}

static void
test_mailboxes(void)
{
	static const char *const bad[] = {
		"", "@", "ada", "ada@", "@example.com", "ada@@example.com", "ada@b@example.com", "a..b@example.com",
		".a@example.com", "a.@example.com", "ada@-example.com", "ada@example-", "ada@exa mple.com", "ada@example..com",
		"ada@example.com.", "ada@[127.0.0.1]", "ada@exämple.com", "ädä@example.com", "\"a b\"@example.com",
		"ada@example.com>", "<ada@example.com", "Ada ada@example.com", "Ada\r\nBcc: x <ada@example.com>",
		"Ada\x7f <ada@example.com>", "Ada\xc2\x85 <ada@example.com>", "Ada \xff <ada@example.com>",
		"ada@example.com\r\nRCPT TO:<x@y>", "Ada <ada@example.com\n>", "a,b@example.com"
	};
	char		longest[400];

	CHECK(reads("ada@example.com", "", "ada@example.com"), "an address");
	CHECK(reads("Ada L. <ada+x_y.z@mail-1.example.com>", "Ada L.", "ada+x_y.z@mail-1.example.com"), "a name");
	CHECK(reads("\"Ada, <3\" <ada@x>", "Ada, <3", "ada@x"), "a quoted name");
	CHECK(reads("  Zo\xc3\xab <a@b>", "Zo\xc3\xab", "a@b") && reads("<a@b>", "", "a@b"), "blanks around it, or none");
	for (int i = 0; i < lengthof(bad); i++)
		CHECK(refusal(bad[i])[0] != '\0', "bad mailbox %d: %s", i + 1, refusal(bad[i]));
	memset(longest, 'a', sizeof(longest));
	strcpy(longest + 65, "@b");
	CHECK(refusal(longest)[0] != '\0' && reads(longest + 1, "", longest + 1), "64 bytes before the @");
	memset(longest, 'a', sizeof(longest));
	strcpy(longest + 201, " <a@b>");
	CHECK(refusal(longest)[0] != '\0' && refusal(longest + 1)[0] == '\0', "200 bytes of a name");
}

/* Is this what the body says?  Without a subject: is it refused? */
static bool
read_fields(const char *body, const char *to, const char *subject, const char *text)
{
	char	   *room = malloc(strlen(body) + 3);
	RetryMailFields fields;
	const char *why;
	bool		good = retry_mail_fields(body, strlen(body), room, &fields, &why);

	if (subject == NULL)
		good = !good && why[0] != '\0';
	else
		good = good && strcmp(fields.subject, subject) == 0 && strcmp(fields.text, text) == 0 &&
		(to == NULL ? fields.to == NULL : fields.to != NULL && strcmp(fields.to, to) == 0);
	free(room);
	return good;
}

static void
test_fields(void)
{
	static const char *const bad[] = {
		"", "{}", "[]", "{\"subject\": \"a\"}", "{\"subject\": 1, \"text\": \"\"}", "{\"subject\": \"a\", \"text\": null}",
		"{\"subject\": \"a\", \"text\": \"b\"", "{\"subject\": \"a\", \"text\": \"b\"} x", "{\"subject\": \"a\", \"text\": \"b\",}",
		"{\"subject\": \"a\", \"text\": \"b\", \"subject\": \"c\"}", "{\"subject\": \"a\", \"text\": \"b\", \"bcc\": \"c\"}",
		"{\"subject\": \"a\", \"text\": \"\\ud800\"}", "{\"subject\": \"a\", \"text\": \"\\u0000\"}", "{\"subject\": \"a\", \"text\": \"\\x\"}",
		"{\"subject\": \"a\", \"text\": \"\n\"}", "{\"subject\": \"a\", \"text\": \"\xc0\xaf\"}", "{\"subject\": \"a\", \"text\": \"\xed\xa0\x80\"}",
		"{\"subject\" \"a\", \"text\": \"b\"}", "{\"subject\": \"a\" \"text\": \"b\"}", "{\"subject\": \"a\", \"text\": \"\\u12", "{\"subject"
	};

	CHECK(read_fields("{\"subject\": \"a\", \"text\": \"b\"}", NULL, "a", "b"), "subject and text");
	CHECK(read_fields(" { \"to\":\"x@y\" ,\"text\":\"\",\"subject\":\"\"}\n", "x@y", "", ""), "to, blanks, nothing in them");
	CHECK(read_fields("{\"subject\": \"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\u20ac\\ud83d\\ude00\\u0041\", \"text\": \"\xc3\xa4\"}", NULL,
					  "\"\\/\b\f\n\r\t\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80" "A", "\xc3\xa4"), "escapes");
	for (int i = 0; i < lengthof(bad); i++)
		CHECK(read_fields(bad[i], NULL, NULL, NULL), "bad body %d", i + 1);
}

/* The mail, terminated; "*script" its envelope.  To be freed. */
static char *
write_mail(const RetryMail *mail, char **script)
{
	size_t		room = retry_mail_room(mail);
	char	   *out = malloc(room + 1);
	size_t		script_len;
	size_t		len = retry_mail_write(mail, out, &script_len);

	CHECK(len > 0 && len <= room, "there is room");
	out[len] = '\0';
	*script = strndup(out, script_len);
	memmove(out, out + script_len, len - script_len + 1);
	return out;
}

static bool
short_lines(const char *text)
{
	while (*text != '\0')
	{
		size_t		line = strcspn(text, "\r\n");

		if (line > 78 || text[line] != '\r' || text[line + 1] != '\n')
			return false;
		for (size_t i = 0; i < line; i++)
		{
			if (text[i] < ' ' || text[i] > '~')
				return false;
		}
		text += line + 2;
	}
	return true;
}

static void
test_mail(void)
{
	const char *to[] = {"\"A \\ B\" <ada@reader.test>", "zoe@reader.test", "Zo\xc3\xab <z@reader.test>"};
	RetryMail	mail = {
		.from = "Retry <retry@sender.test>",.to = to,.to_count = 3,.subject = "down",
		.text = "one\n.\n..two\r\nFrom me\rtrailing \n=\xc3\xa4\ttab\t",.id = "0198-1",.unix_time = INT64CONST(1700000000)
	};
	char	   *script;
	char	   *text = write_mail(&mail, &script);

	CHECK_STR(script, "MAIL FROM:<retry@sender.test>\r\nRCPT TO:<ada@reader.test>\r\nRCPT TO:<zoe@reader.test>\r\n"
			  "RCPT TO:<z@reader.test>\r\nDATA\r\n", "the envelope");
	CHECK_STR(text, "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
			  "From: \"Retry\" <retry@sender.test>\r\n"
			  "To: \"A \\\\ B\" <ada@reader.test>, <zoe@reader.test>, =?UTF-8?B?Wm/Dqw==?=\r\n <z@reader.test>\r\n"
			  "Subject: down\r\n"
			  "Message-ID: <0198-1@sender.test>\r\n"
			  "Auto-Submitted: auto-generated\r\n"
			  "MIME-Version: 1.0\r\n"
			  "Content-Type: text/plain; charset=UTF-8\r\n"
			  "Content-Transfer-Encoding: quoted-printable\r\n"
			  "\r\n"
			  "one\r\n=2E\r\n=2E.two\r\n=46rom me\r\ntrailing=20\r\n=3D=C3=A4\ttab=09\r\n.\r\n", "the mail");
	free(text);
	free(script);

	mail.only = to[1];
	text = write_mail(&mail, &script);
	CHECK_STR(script, "MAIL FROM:<retry@sender.test>\r\nRCPT TO:<zoe@reader.test>\r\nDATA\r\n", "for one of them");
	free(text);
	free(script);
}

static void
test_long(void)
{
	char		name[300];
	char		subject[1000] = "";
	char		body[2000];
	const char *to[] = {name};
	RetryMail	mail = {
		.from = name,.to = to,.to_count = 1,.subject = subject,.text = body,.id = "x",.unix_time = INT64CONST(1) << 60
	};
	char	   *script;
	char	   *text;

	memset(name, '"', 200);
	strcpy(name + 200, " <a@b>");
	while (strlen(subject) < 990)
		strcat(subject, "\xe2\x82\xac\r\n");
	memset(body, '.', sizeof(body) - 1);
	body[sizeof(body) - 1] = '\0';
	text = write_mail(&mail, &script);
	CHECK(short_lines(text) && short_lines(script), "long pieces are folded");
	CHECK(strstr(text, "\r\nSubject:") != NULL && strstr(text, "=?UTF-8?B?4oKsICDigqwgIOKCrCAg4oKsICDigqwgIOKCrCAg4oKsICDigqwg?=\r\n =?UTF-8?B?") != NULL,
		  "an encoded word has whole characters, and no line ends");
	CHECK(strncmp(text, "Date: Thu, 01 Jan 1970", 22) == 0, "a time that no mail can have");
	for (const char *at = text; (at = strstr(at, "\r\n.")) != NULL; at += 3)
		CHECK(strcmp(at, "\r\n.\r\n") == 0, "a line of one dot is the end");
	free(text);
	free(script);

	mail.subject = "\xff\xfe =?UTF-8?B?x?=";
	mail.text = "";
	strcpy(name, "a@b");
	text = write_mail(&mail, &script);
	CHECK(strstr(text, "Subject: =?UTF-8?B?Pz8gPT9VVEYtOD9CP3g/PQ==?=\r\n") != NULL, "what is no UTF-8, and what would be decoded");
	CHECK(strstr(text, "quoted-printable\r\n\r\n.\r\n") != NULL, "no text");
	free(text);
	free(script);

	mail.from = "nobody";
	text = malloc(retry_mail_room(&mail));
	CHECK(retry_mail_write(&mail, text, &(size_t) {0}) == 0, "no sender");
	free(text);
}

int
main(void)
{
	test_mailboxes();
	test_fields();
	test_mail();
	test_long();
	return check_done();
}
