# The listener: webhooks over HTTP, what it refuses, and who may make it go.
use strict;
use warnings;
use Digest::SHA qw(hmac_sha256_base64);
use File::Spec;
use FindBin;
use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use lib $FindBin::Bin;
use MIME::Base64;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = PostgreSQL::Test::Cluster->new('listener');
my $dir = File::Spec->rel2abs($node->basedir . '/secrets');
my $port = PostgreSQL::Test::Cluster::get_free_port();
mkdir $dir or die $!;
$node->init;
$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'contactsync'
contactsync.secret_directory = '$dir'
contactsync.listen_connections = 40
log_min_messages = log
});
$node->start;

my $key = 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
spew("$dir/hook", "whsec_$key\n");

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }
sub signed
{
	my ($id, $body, $time) = @_;
	$time //= time;
	my $signature = hmac_sha256_base64("$id.$time.$body", decode_base64($key));
	$signature .= '=' while length($signature) % 4;
	return ('webhook-id' => $id, 'webhook-timestamp' => $time, 'webhook-signature' => "v1,$signature");
}
sub person { my ($n, $name) = @_; return encode_json({ type => 'contact.updated', data => { id => "c$n", updated_at => '2026-01-01T00:00:00Z', first_name => $name, last_name => "L$n" } }) }
sub post
{
	my ($path, $id, $body, %headers) = @_;
	return HTTP::Tiny->new(timeout => 60)->post("http://127.0.0.1:$port$path", { content => $body, headers => { signed($id, $body), %headers } });
}
# Bytes as they are; what comes back until the server closes.
sub raw
{
	my ($bytes) = @_;
	my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port", Timeout => 30) or return '';
	local $SIG{PIPE} = 'IGNORE';
	print $s $bytes;
	$s->flush;
	my ($answer, $part) = ('');
	$answer .= $part while IO::Select->new($s)->can_read(60) && $s->sysread($part, 65536);
	return $answer;
}
sub listeners { return sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'contactsync listener'") }
sub wait_for_listener
{
	my $tiny = HTTP::Tiny->new(timeout => 5);
	for (1 .. 1500) { return 1 if $tiny->get("http://127.0.0.1:$port/health")->{status} == 200; usleep(20_000) }
	return 0;
}

# ---- on, and off ----
sql('CREATE EXTENSION contactsync');
sql(q{SELECT add_connector('std', '{"driver": "canonical", "webhook": {"scheme": "standard", "payload": "$"}}')});
sql(qq{SELECT add_source('crm', 'std', '{"class": "crm", "webhook": true}', '{"webhook": {"file": "$dir/hook"}}')});
is(listeners(), 0, 'there is none unless it is asked for');
$node->append_conf('postgresql.conf', "contactsync.listen = '127.0.0.1:$port'");
$node->reload;
ok(wait_for_listener(), 'it listens after a reload');

# ---- webhooks ----
my $body = person(1, 'Ann');
my $r = post('/webhooks/crm', 'm1', $body);
is("$r->{status} $r->{content}", '200 {"accepted": 1}', 'a webhook is accepted');
is($r->{headers}{connection}, 'close', 'a connection serves one request');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM contactsync.directory WHERE first_name = 'Ann'}), 'and gets into the directory');
$r = post('/webhooks/crm', 'm1', $body);
is("$r->{status} $r->{content}", '200 {"duplicate": true}', 'a repetition is known');
$r = HTTP::Tiny->new->post("http://127.0.0.1:$port/webhooks/crm", { content => $body });
is($r->{status}, 401, 'one without signature is refused');
$r = HTTP::Tiny->new->post("http://127.0.0.1:$port/webhooks/crm", { content => $body, headers => { signed('m2', $body, time - 3600) } });
is($r->{status}, 401, 'and an old one');
is(post('/webhooks/nobody', 'm3', $body)->{status}, 404, 'an unknown source');
is(post('/webhooks/default/crm', 'm4', person(2, 'Bob'))->{status}, 200, 'the tenant may be named');
is(post('/webhooks/nobody/crm', 'm5', $body)->{status}, 404, 'another tenant has no such source');
is(post('/webhooks/%63rm', 'm6', person(3, 'Cid'))->{status}, 200, 'escapes in the path are read');
for my $path ('/webhooks/', '/webhooks/a/b/c', '/webhooks/%00', '/webhooks/%ff', '/webhooks/%4', '/other', '/', '/webhooks//crm')
{
	is(post($path, 'm7', $body)->{status}, 404, "path $path");
}
my @many = map { { id => "x$_", updated_at => '2026-01-01T00:00:00Z', last_name => "X$_" } } 1 .. 100;
$r = post('/webhooks/crm', 'm8', encode_json({ data => $many[0] }), 'Transfer-Encoding' => '');
is($r->{status}, 400, 'a transfer encoding that is none');
$body = person(4, 'Dee');
my %s = signed('m9', $body);
my $h = join '', map { "$_: $s{$_}\r\n" } sort keys %s;
like(raw("POST /webhooks/crm HTTP/1.1\r\nHost: x\r\n${h}Transfer-Encoding: chunked\r\n\r\n" .
	join('', map { sprintf "%x\r\n%s\r\n", length, $_ } $body =~ /(.{1,7})/gs) . "0\r\n\r\n"), qr/^HTTP\/1.1 200 /, 'a body in chunks');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 4 FROM contactsync.directory}), 'all are there');

# ---- what no proxy would send ----
sub refused
{
	my ($what, $status, $bytes, $by_library) = @_;
	my $answer = raw($bytes);
	like($answer, qr/^HTTP\/1.1 $status /, $what) or diag $answer;
	# libmicrohttpd 0.9.75 repeats the header of an error page of its own
	is(() = $answer =~ m{^HTTP/1\.[01] \d\d\d}mg, 1, "$what: one answer") or diag $answer
		unless $by_library;
}
my $start = "POST /webhooks/crm HTTP/1.1\r\nHost: x\r\n$h";
my $n = length $body;
refused('a length and chunks', 400, "${start}Content-Length: $n\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST /webhooks/crm HTTP/1.1\r\nHost: x\r\n\r\n");
refused('two lengths', 400, "${start}Content-Length: $n\r\nContent-Length: 5\r\n\r\n$body");
refused('a length that is none', 400, "${start}Content-Length: +$n\r\n\r\n$body", 1);
refused('a coding that is not chunked', 400, "${start}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n");
refused('a second request behind the first', 200, "${start}Content-Length: $n\r\n\r\n${body}GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
refused('a body that is too long', 413, "${start}Content-Length: 300000\r\n\r\n");
refused('a length beyond all numbers', 413, "${start}Content-Length: 99999999999999999\r\n\r\n");
refused('too long in chunks', 413, "${start}Transfer-Encoding: chunked\r\n\r\n" . ("10000\r\n" . 'x' x 65536 . "\r\n") x 6 . "0\r\n\r\n");
refused('headers without end', 431, "POST /webhooks/crm HTTP/1.1\r\nHost: x\r\nX: " . 'x' x 70000 . "\r\n\r\n");
refused('more headers than one needs', 400, "POST /webhooks/crm HTTP/1.1\r\nHost: x\r\n" . join('', map { "X$_: y\r\n" } 1 .. 200) . "\r\n");
refused('another method', 405, "GET /webhooks/crm HTTP/1.1\r\nHost: x\r\n\r\n");
refused('no host', 400, "POST /webhooks/crm HTTP/1.1\r\n$h\r\n", 1);
raw("\x16\x03\x01\x02\x00\x01\x00\x01\xfc" . join '', map { chr } 0 .. 255);
is(HTTP::Tiny->new->get("http://127.0.0.1:$port/health")->{status}, 200, 'it still serves');

# ---- slow ones, and many ----
my @idle = map { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port", Timeout => 30) } 1 .. 60;
my $open = 0;
# those beyond are closed at once
for (1 .. 1000)
{
	$open = 0;
	for my $s (@idle) { my $b; $open++ unless IO::Select->new($s)->can_read(0) && !defined($s->sysread($b, 1)) || IO::Select->new($s)->can_read(0) }
	last if $open <= 40;
	usleep(10_000);
}
cmp_ok($open, '<=', 40, 'connections beyond the limit are refused');
cmp_ok($open, '>', 0, 'the others are served');
# a byte now and then does not keep one open: its time is up 15 s after its start
my $drip = (grep { !IO::Select->new($_)->can_read(0) } @idle)[0];
local $SIG{PIPE} = 'IGNORE';
my $sent = 0;
for (1 .. 120)
{
	last if IO::Select->new($drip)->can_read(0.5);
	$sent++ if $drip->syswrite(substr("POST /webhooks/crm HTTP/1.1\r\nHost: x\r\nX-Slow: " . 'x' x 200, $sent, 1));
}
cmp_ok($sent, '<', 120, 'a slow one is ended');
close $_ for @idle;
ok(wait_for_listener(), 'there is room again');

# ---- errors do not cost others anything ----
my $blocker = $node->background_psql('postgres');
$blocker->query_safe("BEGIN");
$blocker->query_safe("INSERT INTO contactsync.inbox_dedup (source, key, inbox_id) VALUES ('crm', 'webhook:held', 0)");
my @pids;
for my $id ('held', map { "free$_" } 1 .. 5)
{
	my $pid = fork // die;
	if (!$pid) { my $r = post('/webhooks/crm', $id, person("h$id", 'Eve')); require POSIX; POSIX::_exit($r->{status} == ($id eq 'held' ? 503 : 200) ? 0 : 1) }
	push @pids, $pid;
}
is(join(' ', map { waitpid $_, 0; $? >> 8 } @pids), '0 0 0 0 0 0', 'one that must wait is told to come again; the others are taken');
$blocker->query_safe('ROLLBACK');
$blocker->quit;
is(post('/webhooks/crm', 'held', person('held', 'Eve'))->{status}, 200, 'and is taken then');

# ---- no room ----
sql('ALTER SYSTEM SET contactsync.inbox_limit = 1');
$node->reload;
my $lock = $node->background_psql('postgres');
$lock->query_safe('BEGIN');
$lock->query_safe("SELECT contactsync.ingest('crm', 'z', '{\"last_name\": \"Z\"}', now())");
$lock->query_safe("SELECT contactsync.process()");
# the tenant's lock is held: what comes has to wait in the inbox
my $status = 0;
for my $i (1 .. 500) { $status = post('/webhooks/crm', "full$i", person("f$i", 'Fay'))->{status}; last if $status == 503; usleep(20_000) }
is($status, 503, 'a full inbox takes no more');
is(HTTP::Tiny->new->get("http://127.0.0.1:$port/health")->{status}, 503, 'and says so');
$lock->query_safe('ROLLBACK');
$lock->quit;
ok(wait_for_listener(), 'until there is room');
sql('ALTER SYSTEM RESET contactsync.inbox_limit');
$node->reload;

# ---- kill, copy, drop ----
my $pid = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'contactsync listener'");
sql("SELECT pg_terminate_backend($pid)");
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'contactsync listener' AND pid <> $pid"), 'one that was ended is started again');
ok(wait_for_listener(), 'and serves');
$node->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
pass('its database can be copied');
ok(wait_for_listener(), 'and is served again');
# the copy has the same setting, and is dormant: nobody else listens
is(listeners(), 1, 'one listener');
sql('DROP EXTENSION contactsync');
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'contactsync listener'"), 'it goes with the extension');
is(HTTP::Tiny->new->get("http://127.0.0.1:$port/health")->{status}, 599, 'nobody listens');
sql('CREATE EXTENSION contactsync; SELECT activate()');
ok(wait_for_listener(), 'and comes with it');
$node->safe_psql('template1', 'DROP DATABASE postgres');
$node->safe_psql('template1', 'CREATE DATABASE postgres');

# ---- where it cannot listen ----
my $taken = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die;
my $log = -s $node->logfile;
$node->append_conf('postgresql.conf', "contactsync.listen = '127.0.0.1:" . $taken->sockport . "'");
$node->reload;
sql('CREATE EXTENSION contactsync; SELECT activate()');
$node->wait_for_log(qr/contactsync could not listen at "127.0.0.1:\d+": Address already in use/, $log);
pass('a port that is taken is told');
$log = -s $node->logfile;
$node->append_conf('postgresql.conf', "contactsync.listen = 'localhost'");
$node->reload;
$node->wait_for_log(qr/contactsync could not listen at "localhost": the address must be/, $log);
pass('and an address that is none');
unlike(join('', grep { !/LOG:  statement: / } split /^/m, slurp_file($node->logfile)), qr/MfKQ9|Ann|\bL1\b/, 'neither secrets nor people are in the log');
$node->stop('fast');
done_testing();
