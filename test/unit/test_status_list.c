/*
 * test_status_list.c
 *		Unit test of the lists that scenes hold: statuses and error classes.
 *
 * What a list means is compared status by status with what it says; what is
 * refused is refused with the piece that is wrong and its place, since that is
 * what whoever wrote the list gets to see.  Every list that is accepted is
 * asked for numbers beyond both ends too.
 */
#include "postgres.h"

#include "../../src/status_list.h"
#include "check.h"

/* The list is read, and has exactly the statuses of these ranges (0, 0 ends). */
static void
accepted(const char *text, const int (*ranges)[2])
{
	RetryStatusSet set;
	RetryParseError err;
	bool		good;
	int			wrong = 0;
	char		name[100];

	memset(&set, 0x5A, sizeof(set));
	good = retry_status_list_parse(text, &set, &err);
	for (int status = -1000; status <= 2000 && good; status++)
	{
		bool		want = false;

		for (int i = 0; ranges[i][0] != 0; i++)
			want = want || (status >= ranges[i][0] && status <= ranges[i][1]);
		if (retry_status_set_has(&set, status) != want)
			wrong++;
	}
	/* the name of a test is one line */
	snprintf(name, sizeof(name), "%s", text);
	for (char *c = name; *c != '\0'; c++)
	{
		if (*c < ' ')
			*c = '_';
	}
	CHECK(good && wrong == 0, "'%s' is read, %d statuses are wrong", name, wrong);
}

static void
refused(bool (*parse) (const char *, RetryParseError *), const char *text, int at, const char *part,
		const char *reason)
{
	RetryParseError err = {-1, -1, "", ""};

	CHECK(!parse(text, &err), "'%.40s' is refused", text);
	CHECK(err.part_at == at && err.part_len == strlen(part) &&
		  strncmp(text + at, part, strlen(part)) == 0, "... '%.*s' at %d", err.part_len,
		  text + Max(err.part_at, 0), err.part_at);
	CHECK_STR(err.reason, reason, "... says why");
	CHECK(strncmp(err.hint, "Write ", 6) == 0, "... has a hint");
}

static bool
parse_statuses(const char *text, RetryParseError *err)
{
	RetryStatusSet set;

	return retry_status_list_parse(text, &set, err);
}

static bool
parse_errors(const char *text, RetryParseError *err)
{
	RetryErrorSet set;

	return retry_error_list_parse(text, &set, err);
}

static void
test_statuses(void)
{
	static const int none[][2] = {{0, 0}};
	static const int success[][2] = {{200, 299}, {409, 409}, {0, 0}};
	static const int all[][2] = {{100, 599}, {0, 0}};
	static const int ends[][2] = {{100, 100}, {599, 599}, {0, 0}};
	static const int words[][2] = {{131, 132}, {163, 164}, {0, 0}};
	static const int overlap[][2] = {{200, 310}, {0, 0}};
	const char *what = "is neither a status from 100 to 599 nor a range of them";

	accepted("", none);
	accepted(" \t\n ", none);
	accepted("200-299,409", success);
	accepted(" 200 - 299 ,\t409 ", success);
	accepted("409,409,200-299", success);
	accepted("100-599", all);
	accepted("599,100", ends);
	accepted("599-599,100-100", ends);
	accepted("131-132,163,164", words);
	accepted("200-300,250-310,260", overlap);

	refused(parse_statuses, "2xx", 0, "2xx", what);
	refused(parse_statuses, "200,600", 4, "600", what);
	refused(parse_statuses, "99", 0, "99", what);
	refused(parse_statuses, "200, 0200 ,300", 5, "0200", what);
	refused(parse_statuses, "-200", 0, "-200", what);
	refused(parse_statuses, "200-", 0, "200-", what);
	refused(parse_statuses, "200--299", 0, "200--299", what);
	refused(parse_statuses, "200-250-299", 0, "200-250-299", what);
	refused(parse_statuses, "20 0", 0, "20 0", what);
	refused(parse_statuses, "200;300", 0, "200;300", what);
	refused(parse_statuses, "100-600", 0, "100-600", what);
	refused(parse_statuses, "\xC3\xA9", 0, "\xC3\xA9", what);
	refused(parse_statuses, "200,299-200", 4, "299-200", "is a range that ends before it begins");
	refused(parse_statuses, ",200", 0, ",", "has nothing before it");
	refused(parse_statuses, "200,,300", 4, ",", "has nothing before it");
	refused(parse_statuses, "200, ,300", 5, ",", "has nothing before it");
	refused(parse_statuses, "200,", 3, ",", "has nothing after it");
	refused(parse_statuses, "200, ", 4, " ", "has nothing before it");
}

static void
test_length(void)
{
	char		text[RETRY_STATUS_LIST_SIZE + 2];
	RetryParseError err;

	memset(text, ' ', sizeof(text));
	memcpy(text, "200", 3);
	text[RETRY_STATUS_LIST_SIZE] = '\0';
	CHECK(parse_statuses(text, &err), "the longest list");
	text[RETRY_STATUS_LIST_SIZE] = ' ';
	text[RETRY_STATUS_LIST_SIZE + 1] = '\0';
	refused(parse_statuses, text, 0, "200                 ", "begins a list that is too long");
}

static void
test_errors(void)
{
	RetryErrorSet set;
	RetryParseError err;
	const char *what = "is neither a class of errors nor an SQLSTATE of one";
	char		many[RETRY_ERROR_SET_STATES * 6 + 6];

	CHECK(retry_error_list_parse("", &set, &err), "an empty list");
	for (int i = 0; i < RETRY_CLASSES; i++)
		CHECK(!retry_error_set_has(&set, (RetryErrorClass) i, MAKE_SQLSTATE('4', '0', '0', '0', '1')),
			  "has not %s", retry_error_class_name((RetryErrorClass) i));

	CHECK(retry_error_list_parse(" tls ,dns,40001", &set, &err), "classes and an SQLSTATE");
	for (int i = 0; i < RETRY_CLASSES; i++)
	{
		bool		want = i == RETRY_CLASS_TLS || i == RETRY_CLASS_DNS;

		CHECK(retry_error_set_has(&set, (RetryErrorClass) i, 0) == want, "has %s%s",
			  want ? "" : "not ", retry_error_class_name((RetryErrorClass) i));
	}
	CHECK(!retry_error_set_has(&set, (RetryErrorClass) 40, 0), "a class of no known kind");
	CHECK(retry_error_set_has(&set, RETRY_CLASS_NONE, MAKE_SQLSTATE('4', '0', '0', '0', '1')), "has the SQLSTATE");
	CHECK(!retry_error_set_has(&set, RETRY_CLASS_NONE, MAKE_SQLSTATE('4', '0', 'P', '0', '1')), "and no other");

	for (int i = 1; i < RETRY_CLASSES; i++)
	{
		const char *name = retry_error_class_name((RetryErrorClass) i);

		CHECK(retry_error_list_parse(name, &set, &err) && set.classes == UINT32_C(1) << i &&
			  set.nstates == 0, "the name %s", name);
	}
	CHECK_STR(retry_error_class_name(RETRY_CLASSES), "", "no name for no class");

	many[0] = '\0';
	for (int i = 0; i < RETRY_ERROR_SET_STATES; i++)
		sprintf(many + 6 * i, "P0%03d,", i);
	many[6 * RETRY_ERROR_SET_STATES - 1] = '\0';
	CHECK(retry_error_list_parse(many, &set, &err) && set.nstates == RETRY_ERROR_SET_STATES, "as many as there may be");
	strcat(many, ",P0999");
	refused(parse_errors, many, 6 * RETRY_ERROR_SET_STATES, "P0999",
			"is one SQLSTATE more than the 32 that a list may have");

	refused(parse_errors, "tls,TLS", 4, "TLS", what);
	refused(parse_errors, "time", 0, "time", what);
	refused(parse_errors, "timeouts", 0, "timeouts", what);
	refused(parse_errors, "connect timeout", 0, "connect timeout", what);
	refused(parse_errors, "ok", 0, "ok", what);
	refused(parse_errors, "4000", 0, "4000", what);
	refused(parse_errors, "400011", 0, "400011", what);
	refused(parse_errors, "40p01", 0, "40p01", what);
	refused(parse_errors, "00000", 0, "00000", what);
	refused(parse_errors, "01000", 0, "01000", what);
	refused(parse_errors, "02000", 0, "02000", what);
	refused(parse_errors, "tls,", 3, ",", "has nothing after it");
}

int
main(void)
{
	test_statuses();
	test_length();
	test_errors();
	return check_done();
}
