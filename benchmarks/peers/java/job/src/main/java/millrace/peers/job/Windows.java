package millrace.peers.job;

/** The windows over event time, in milliseconds; all slide exactly, to the millisecond. */
public final class Windows {
    public static final long DAY_MS = 86_400_000L;
    public static final long LONGEST_MS = 30 * DAY_MS;

    /** A payment is remembered if it is no more than this older than the newest one of its customer. */
    public static final long LATENESS_MS = DAY_MS;

    /** A count and a mean for each window. */
    public static final int FEATURES = 6;

    static final long[] LENGTHS_MS = {DAY_MS, 7 * DAY_MS, LONGEST_MS};

    private Windows() {}
}
