# The HTTP engine: connections, lines, bounds, what an answer means, cancelling.
use strict;
use warnings;
use File::Spec;
use FindBin;
use lib $FindBin::Bin;
use Http;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = File::Spec->rel2abs(PostgreSQL::Test::Utils::tempdir());
build_driver($dir);
my ($peer, $ports) = start_servers($dir);
my $base = "http://127.0.0.1:$ports->{plain}";
my $on = 'http private';

sub one { my @x = drive(join("\n", @_, 'wait', '')); return $x[-1] }
sub ask { my ($path, @words) = @_; return one("send a $base$path $on @words") }
sub count { return decode_json(ask('/count')->{body}) }
# A response as a server would write it, without a body.
sub headers { return raw(join("\r\n", "HTTP/1.1 $_[0] X", 'Content-Length: 0', @_[1 .. $#_], '', '')) }

# ---- connections ----
count();
my @x = drive("send a $base/size/205 $on n=400\nwait\nstat\n");
my $stat = pop @x;
is(scalar(grep { $_->{fault} eq 'answered' && $_->{status} == 200 && $_->{len} == 205 && $_->{sent} } @x), 400, 'four hundred requests are answered');
my $count = count();
is($count->{requests}, 400, 'each once');
cmp_ok($count->{connections}, '<=', 51, "over $count->{connections} connections, which are kept");
@x = drive("set http_connections 300\nset http_host_connections 300\nsend a $base/wait/500/10 $on n=300\nwait\nstat\n");
$count = count();
is($x[-1]{most_active}, 300, 'hundreds are in flight at a time');
cmp_ok($count->{most}, '>=', 250, "over $count->{most} connections");
count();
drive("send a $base/silent $on n=9\nwait 500\ncancel a\n");
is(count()->{requests}, 9, 'and none waits to see what becomes of another');
is(scalar(grep { $_->{status} eq '200' } @x[0 .. 299]), 300, 'and answered');
@x = drive("set http_host_connections 3\nset http_connections 5\nsend a $base/wait/20/10 $on n=30\nsend b http://localhost:$ports->{plain}/wait/20/10 $on n=30\nwait\nstat\n");
$count = count();
cmp_ok($count->{most}, '<=', 6, 'the bound on all connections holds');		# and the one that counts
is($x[-1]{most_connections}, 5, 'and is used');
@x = drive("set http_host_connections 3\nsend a $base/wait/20/10 $on n=30\nwait\nstat\n");
is($x[-1]{most_connections}, 3, 'so is that of one server');
@x = drive("set http_host_connections 2\nset http_connections 4\nsend slow $base/wait/1500 $on n=6\nsend fast http://localhost:$ports->{plain}/size/1 $on n=20\nawait 20\nstat\nwait\n");
is(scalar(grep { $_->{tag} eq 'fast' } @x[0 .. 19]), 20, 'a slow server does not hold up another');
@x = drive("set http_host_connections 1\nset http_timeout 2\nsend a $base/wait/700/1 $on n=5\nwait\n");
is(scalar(grep { $_->{fault} eq 'answered' } @x), 5, 'the time of a request does not run while it waits in line');
@x = drive("set http_host_connections 1\nsend a $base/wait/50/1 $on n=12\nawait 2\nset http_host_connections 10\nwait\nstat\n");
is($x[-1]{most_connections}, 10, 'new settings affect the requests that wait');
@x = drive("set descriptors 60\nsend a $base/wait/20/1 $on n=40\nwait\nstat\n");
is($x[-1]{most_connections}, 12, 'descriptors that the server has not are not used');
like($x[-1]{notes}, qr/enough for 12 only/, 'which is said');

# ---- what a request is made of; nothing of it stays ----
@x = drive("set http_connections 1\nsend a $base/echo $on token=secret header=X-A:1\nwait\nsend b $base/echo $on\nwait\nsend c $base/echo $on user=u password=p\nwait\nsend d $base/echo $on\nwait\n"
	. "send e $base/echo $on method=PUT body=text\nwait\nsend f $base/echo $on method=DELETE\nwait\nsend g $base/echo $on method=HEAD\nwait 300\ncancel g\nsend h $base/size/1 $on header=User-Agent:other\nwait\n");
like($x[0]{body}, qr{^GET /echo HTTP/1.1~.*~Authorization: Beare}, 'a token is sent');
unlike($x[1]{body}, qr/Authorization/, 'and not with the next request, over the same connection');
like($x[2]{body}, qr/~Authorization: Basic/, 'so a password');
unlike($x[3]{body}, qr/Authorization/, 'either');
like($x[4]{body}, qr/^PUT /, 'PUT');
like($x[5]{body}, qr/^DELETE /, 'DELETE');

# ---- bounds ----
my $a;
sub limited { my ($settings, $path, @words) = @_; return one((map { "set $_" } @$settings), "send a $base$path $on @words") }
$a = limited([ 'http_timeout 1' ], '/silent');
is("$a->{fault} $a->{class} $a->{sent}", 'failed unknown 1', "no answer in time; whether the request was carried out, nobody knows: $a->{error}");
cmp_ok($a->{ms}, '<', 1900, 'in time');
$a = limited([ 'http_stall_timeout 2' ], '/drip/800');
is("$a->{fault} $a->{class}", 'failed unknown', "an answer that drips: $a->{error}");
cmp_ok($a->{ms}, '<', 15000, 'is not waited for');
$a = limited([ 'http_max_body 100' ], '/size/102400');
is("$a->{fault} $a->{len}", 'answered 102400', 'a body of the largest size');
$a = limited([ 'http_max_body 100' ], '/size/102401');
is("$a->{fault} $a->{class} $a->{len}", 'too_large permanent 0', "one byte more: $a->{error}");
$a = limited([ 'http_max_body 100' ], '/until/102500');
is($a->{fault}, 'too_large', 'also where its length is not said before');
$a = limited([ 'http_max_body 100' ], '/gzip/102400');
is("$a->{fault} $a->{len}", 'answered 102400', 'compressed, counted as it is');
@x = drive("set http_max_body 1000\nsend a $base/gzip/100000000 $on\nwait\nstat\n");
is($x[0]{fault}, 'too_large', 'a bomb of 100 MB');
cmp_ok($x[1]{most_held}, '<', 2_200_000, "takes $x[1]{most_held} bytes");
$a = ask('/headers/100/1000');
is($a->{fault}, 'answered', '100 kB of headers');
$a = ask('/headers/140/1000');
is("$a->{fault} $a->{class}", 'too_large permanent', "140 kB: $a->{error}");
$a = ask('/headers/1/200000');
isnt($a->{fault}, 'answered', "a header of 200 kB: $a->{error}");
$a = ask(raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", 'close'));
is("$a->{fault} $a->{class}", 'failed unknown', "an answer that is cut off: $a->{error}");
$a = ask(raw("no HTTP at all\r\n\r\n", 'close'));
is($a->{fault}, 'failed', "an answer in no protocol: $a->{error}");
$a = ask(headers(302, 'Location: http://127.0.0.1:1/'));
is("$a->{status} $a->{location}", '302 http://127.0.0.1:1/', 'a redirect is not followed');
$a = ask(raw("HTTP/1.1 103 Early Hints\r\nLink: <x>; rel=next\r\nRetry-After: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
is("$a->{status} $a->{link} $a->{retry_after}", '200  -1', 'an interim answer says nothing');

# ---- what headers say ----
my $then = 'Date: Sun, 06 Nov 1994 08:49:37 GMT';
my @retry = ([ '7', 7 ], [ '0', -1 ], [ '-5', -1 ], [ '99999999999999999999999999', 86400 ], [ 'soon', -1 ], [ '', -1 ], [ '1e9', -1 ],
	[ 'Sun, 06 Nov 1994 08:50:07 GMT', 30 ], [ 'Sun, 06 Nov 1994 08:49:07 GMT', -1 ], [ 'Sunday, 06-Nov-94 08:50:07 GMT', 30 ], [ 'Fri, 31 Dec 9999 23:59:59 GMT', 86400 ]);
for (@retry)
{
	$a = ask(headers(429, $then, "Retry-After: $_->[0]"));
	is("$a->{retry_after} $a->{class} $a->{date}", "$_->[1] rate 784111777", "Retry-After: $_->[0]");
}
for ([ 'Thu, 29 Feb 2024 23:59:60 GMT', 1709251200 ], [ 'Fri, 01 Mar 2024 00:00:00 GMT', 1709251200 ], [ 'Thu, 01 Jan 1970 00:00:00 GMT', 0 ], [ 'Sun, 06 Nov 1994 99:49:37 GMT', -1 ], [ 'nonsense', -1 ])
{
	is(ask(headers(200, "Date: $_->[0]"))->{date}, $_->[1], "Date: $_->[0]");
}
my $now = time;
for ([ 'X-RateLimit-Remaining: 0', 'X-RateLimit-Reset: 30', '0', 30000, 30000 ], [ 'RateLimit-Remaining: 5', 'RateLimit-Reset: 1', '5', 1000, 1000 ],
	[ 'X-RateLimit-Remaining: 1', 'X-RateLimit-Reset: ' . ($now + 100), '1', 80000, 100000 ], [ 'X-Rate-Limit-Remaining: 2', 'X-Rate-Limit-Reset: ' . ($now + 100) . '000', '2', 80000, 100000 ],
	[ 'X-HubSpot-RateLimit-Remaining: 3', 'X-HubSpot-RateLimit-Interval-Milliseconds: 10000', '3', 10000, 10000 ],
	[ 'X-RateLimit-Remaining: -3', 'X-RateLimit-Reset: -1', '-1', -1, -1 ], [ 'X-RateLimit-Remaining: 99999999999999999999', 'X-RateLimit-Reset: 99999999999999999999', '100000000000000', 86400000, 86400000 ])
{
	$a = ask(headers(200, @$_[0, 1]));
	ok($a->{left} eq $_->[2] && $a->{reset_ms} >= $_->[3] && $a->{reset_ms} <= $_->[4], "$_->[0], $_->[1]: $a->{left}, $a->{reset_ms} ms");
}
for ([ 200, 'fine' ], [ 304, 'fine' ], [ 400, 'permanent' ], [ 401, 'auth' ], [ 404, 'permanent' ], [ 408, 'transient' ], [ 423, 'transient' ], [ 425, 'transient' ], [ 429, 'rate' ],
	[ 500, 'transient' ], [ 501, 'permanent' ], [ 502, 'unknown' ], [ 503, 'transient' ], [ 504, 'unknown' ])
{
	is(ask(headers($_->[0]))->{class}, $_->[1], "status $_->[0] is $_->[1]");
}
$a = one("send a http://127.0.0.1:9/ $on");
is("$a->{fault} $a->{class} $a->{sent}", 'failed transient 0', "without a connection nothing was sent: $a->{error}");
$a = ask(raw('', 'close'), 'method=POST', 'body={}');
is("$a->{fault} $a->{class} $a->{sent}", 'failed unknown 1', 'a connection that is closed without an answer: unknown outcome');

# ---- a connection that was kept, and is closed when it is used ----
count();
@x = drive("set http_connections 1\nsend a $base/once $on\nwait\nsend b $base/size/3 $on\nwait\n");
is("$x[1]{fault} $x[1]{len}", 'answered 3', 'what only reads is sent again');
@x = drive("set http_connections 1\nsend a $base/once $on\nwait\nsend b $base/size/3 $on method=POST body={}\nwait\n");
is("$x[1]{fault} $x[1]{class} $x[1]{sent}", 'failed unknown 1', "what changes something is not: $x[1]{error}");
is(count()->{requests}, 3, 'the server has seen it once at most');

# ---- memory ----
@x = drive("set http_memory 1000\nset http_connections 20\nsend a $base/size/400000 $on n=20\nwait\nsend b $base/size/400000 $on n=40\nwait\nstat\n");
is(scalar(grep { $_->{fault} eq 'answered' && $_->{len} eq '400000' } @x), 60, 'large answers all come');
cmp_ok($x[-1]{most_held}, '<', 2_100_000, "in the memory that there is for them: $x[-1]{most_held} bytes");
is($x[-1]{held}, 0, 'which is free at once');
@x = drive("set http_memory 1000\nkeep\nsend a $base/size/600000 $on n=4\nwait 700\nstat\ngive\nwait\nstat\n");
cmp_ok(scalar(grep { $_->{tag} eq 'a' } @x[0 .. 2]), '<=', 3, 'while nobody gives answers back');
my @stats = grep { $_->{tag} eq 'stat' } @x;
cmp_ok($stats[0]{most_held}, '<', 2_000_000, "no more are taken in: $stats[0]{most_held} bytes");
is(scalar(grep { $_->{tag} eq 'a' && $_->{fault} eq 'answered' } @x), 4, 'then all come');
@x = drive("set http_memory 100\nset http_max_body 2000\nsend a $base/size/1500000 $on n=3\nwait\n");
is(scalar(grep { $_->{fault} eq 'answered' } @x), 3, 'one that alone is larger than that comes, too');

# ---- cancelling ----
count();
@x = drive("set http_host_connections 2\nsend gone $base/silent $on n=5\nsend stay $base/size/7 $on n=3\nwait 300\nstat\nsend gone nonsense://x/ $on\ncancel gone\nwait\nstat\n");
is(join(' ', map { $_->{tag} } @x), 'stat stay stay stay stat', 'requests that are cancelled never come back, and make room for others');
is("$x[-1]{active} $x[-1]{waiting} $x[-1]{held}", '0 0 0', 'and nothing of them is left');
is(count()->{requests}, 5, 'those that waited were not sent');

# ---- what may not be asked ----
my $p = $ports->{plain};
count();
for ("http://u:p\@127.0.0.1:$p/size/1", "http://127.0.0.1:$p\@127.0.0.1:$p/size/1", "ftp://127.0.0.1/x", 'file:///etc/passwd', 'gopher://127.0.0.1:1/x', 'nonsense', 'http://', "http://127.0.0.1:$p:1/", "http://[::1%25lo]x/")
{
	$a = one("send a $_ $on");
	isnt($a->{fault}, 'answered', "$_: $a->{error}");
	is($a->{sent}, 0, 'nothing is sent');
}
is(one("send a $base/size/1 private")->{fault}, 'refused', 'http where it is not allowed');
for ("127.0.0.1", "localhost", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "0.0.0.0", "0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[64:ff9b::127.0.0.1]",
	"[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[fe80::1%25lo]", "[fe80::1%25eth0]", "[fc00::1]", "[fd00:ec2::254]", "169.254.169.254", "2852039166", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1",
	"198.18.0.1", "192.0.2.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "[ff02::1]", "[::127.0.0.1]", "[64:ff9b:1::1]", "[2001:db8::1]", "[2001::1]")
{
	$a = one("send a http://$_:$p/size/1 http");
	ok($a->{fault} ne 'answered' && $a->{sent} == 0, "http://$_ is not a public address: $a->{error}");
}
is(count()->{requests}, 0, 'nothing of all that reached the server');
is(ask('/size/1')->{fault}, 'answered', 'though it is there');
# a connection that one source has opened, and another may not use
@x = drive("set http_connections 1\nsend a $base/size/1 $on\nwait\nsend b $base/size/1 http\nwait\n");
is("$x[0]{fault} $x[1]{fault} $x[1]{sent}", 'answered refused 0', 'a kept connection to a private address is of no use to who may not have one');

$peer->kill_kill;
done_testing();
