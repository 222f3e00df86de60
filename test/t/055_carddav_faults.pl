# CardDAV when things break: the server answers badly, the worker or the whole
# database dies in the middle of a page.  Nothing is lost, nothing comes twice.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($node, $dir) = peers_node('faults');
my ($radicale, $base) = start_radicale("$dir/radicale");
my ($proxy, $front) = start_proxy($dir, $base);
spew("$dir/user", "ann\n");
spew("$dir/password", "pw\n");
sub fault { proxy(op => 'mode', path => '/ann/', mode => $_[0], match => $_[1] // '', skip => $_[2] // 0) }

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }
sub run_source
{
	my $run = sql("SELECT sync('ann')");
	return sql("SELECT wait_for_run($run, '60 s')") . ' ' . (sql("SELECT error_code FROM runs WHERE id = $run") || '-');
}

my $book = "$base/ann/contacts";
dav('PUT', "$book/", join('', map { card("u$_", "First$_", "Last$_", "EMAIL:p$_\@x.org") } 100 .. 449));
sql('CREATE EXTENSION contactsync');
sql(qq{SELECT add_source('ann', 'carddav', '{"url": "$front/ann/contacts/", "poll": false, "allow_http": true, "allow_private": true}',
	'{"username": {"file": "$dir/user"}, "password": {"file": "$dir/password"}}')});

# ---- the worker is killed in the middle of the first read ----
fault('stall', 'addressbook-multiget', 2);
my $run = sql("SELECT sync('ann')");
ok($node->poll_query_until('postgres', "SELECT items = 200 FROM contactsync.runs WHERE id = $run"), 'two hundred cards are in');
my $pid = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'contactsync worker' AND datname = 'postgres'});
my $offset = -s $node->logfile;
fault(undef);
kill 'KILL', $pid;
$node->wait_for_log(qr/database system is ready to accept connections/, $offset);
ok($node->poll_query_until('postgres', "SELECT state = 'succeeded' AND certificate_applied FROM contactsync.runs WHERE id = $run"), 'the run goes on by itself');
is(sql("SELECT attempt, items, certified FROM runs WHERE id = $run"), '2|350|t', 'and fetches only what it had not');
is(sql('SELECT count(*) FROM directory'), '350', 'nothing is lost');
is(sql('SELECT count(*) FROM observations'), '350', 'nothing comes twice');

# ---- the server dies in the middle of a delta ----
dav('PUT', "$book/" . sql(qq{SELECT source_id FROM records WHERE state ->> 'last_name' = 'Last$_'}), card("u$_", "First$_", "Last$_", "EMAIL:p$_\@x.org", 'TITLE:New'))
	for 100 .. 119;
fault('stall', 'addressbook-multiget');
$run = sql("SELECT sync('ann')");
ok($node->poll_query_until('postgres', "SELECT pages = 1 FROM contactsync.runs WHERE id = $run"), 'the list is in');
$node->stop('immediate');
fault(undef);
$node->start;
ok($node->poll_query_until('postgres', "SELECT state = 'succeeded' FROM contactsync.runs WHERE id = $run"), 'after a crash the run goes on');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 20 FROM contactsync.directory WHERE title = 'New'}), 'with all that changed');

# ---- bad answers ----
my $cursor = sql(q{SELECT "cursor" FROM sources WHERE name = 'ann'});
dav('PUT', "$book/new$_.vcf", card("n$_", "N$_", "New$_", "EMAIL:n$_\@x.org")) for 1 .. 3;
for my $case (['status:500', '', '08006'], ['status:429', '', '08006'], ['html', '', '08P01'], ['half', '', '08P01'], ['truncated', '', '08006'],
	['stall', '', '08006'], ['status:404', '', '08P01'], ['half', 'addressbook-multiget', '08P01'], ['drop', 'addressbook-multiget', '08P01'], ['status:403', 'addressbook-multiget', '28000'])
{
	my ($fault, $match, $code) = @$case;
	# a server error after a failure with the same token would rightly lead to a full read
	sql(q{SELECT resume_source('ann'); UPDATE sources SET failures = 0 WHERE name = 'ann'});
	set_timeout($node, $fault eq 'stall' ? 1 : 60);
	fault($fault, $match);
	is(run_source(), "failed $code", "$fault" . ($match ? " while fetching" : "") . ": " . sql("SELECT error FROM runs ORDER BY id DESC LIMIT 1"));
}
is(sql(q{SELECT "cursor" FROM sources WHERE name = 'ann'}), $cursor, 'the cursor stayed');
is(sql('SELECT count(*) FROM directory'), '350', 'and so did everybody');
fault(undef);
sql(q{SELECT resume_source('ann')});
is(run_source(), 'succeeded -', 'the next run goes on');
is(sql('SELECT count(*) FROM directory'), '353', 'with what was new');

# ---- a server that breaks down at every tokened report ----
fault('status:500', 'sync-token>http');
is(run_source(), 'failed 08006', 'once is a failure');
is(run_source(), 'succeeded -', 'twice is a lost token: a full read');
is(sql(q{SELECT kind, cause, certified FROM runs ORDER BY id DESC LIMIT 1}), 'full|cursor lost|t', 'that is certified');
is(sql('SELECT count(*) FROM directory'), '353', 'and loses nobody');
fault(undef);

# ---- a delete by absence that is refuted ----
my $id = sql(q{SELECT source_id FROM records WHERE state ->> 'last_name' = 'Last200'});
sql(qq{INSERT INTO inbox (source, source_id, kind, version, inferred) SELECT 'ann', '$id', 'delete', now(), true; SELECT process()});
is(sql(q{SELECT count(*) FROM directory WHERE last_name = 'Last200'}), '0', 'somebody was thought to be absent');
my $full = sql(q{SELECT sync('ann', true)});
is(sql("SELECT wait_for_run($full)"), 'succeeded', 'a full read shows the record, unchanged');
is(sql(q{SELECT first_name, emails -> 0 ->> 'address' FROM directory WHERE last_name = 'Last200'}), 'First200|p200@x.org', 'it is back, with all it had');

unlike(slurp_file($node->logfile), qr/TRAP|PANIC/, 'no assertion failed');
$node->stop;
$proxy->kill_kill;
$radicale->kill_kill;
done_testing();
