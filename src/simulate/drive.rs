//! How a healthy car drives and what its sensors read: the physics, and nothing of faults.
//!
//! Time is continuous. A step of any length is cut into ticks of at most [`TICK`] seconds, and every lag is exact in its
//! length, so that a car read at 5 Hz, 1 Hz or 0.1 Hz is the same car. What is drawn for the road and what is drawn for
//! the sensors' noise are separate streams: a car read at 1 Hz and at 0.1 Hz takes the very same way.

use super::chance::{Dice, Purpose, left_after, wave};
use super::sensor::{self, Row};

/// Longest tick of the physics, in seconds.
const TICK: f64 = 0.5;
/// Share of the battery's power that reaches the wheels.
const EFFICIENCY: f32 = 0.85;
/// Power at full throttle, W.
const FULL_POWER: f32 = 60_000.0;
/// Below this speed (m/s) the motor gives constant force, above it constant power.
const BASE_SPEED: f32 = 8.0;
/// Mass of the usual car, kg.
const MASS: f32 = 1_750.0;
/// Rolling resistance, m/s².
const ROLLING: f32 = 0.108;
/// Air resistance over mass and squared speed, 1/m.
const DRAG: f32 = 2.13e-4;
/// Most power that braking gives back, W.
const REGENERATION: f32 = 20_000.0;
/// The battery's capacity, As.
const CAPACITY: f64 = 190.0 * 3_600.0;
/// Charge below which a driver looks for a charger.
const LOW_CHARGE: f64 = 0.2;
/// Charge at which one stops wherever one is.
const NO_CHARGE: f64 = 0.08;
/// The firmware most cars run, and the one some have not left.
pub(crate) const FIRMWARE: [f32; 2] = [2000.0, 1000.0];

/// What a car is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    Town,
    Motorway,
    Idle,
    Parked,
    Charging,
}

impl Activity {
    fn is_on(self) -> bool {
        self != Activity::Parked
    }
}

/// How one car differs from the next.
#[derive(Debug, Clone)]
struct Build {
    mass: f32,
    drag: f32,
    eager: f32,
    /// W that heating, lights and computers take.
    auxiliary: f32,
    resistance: f32,
    volts: f32,
    vibration: f32,
    flow: f32,
    coolant: f32,
    tyre: [f32; 4],
    accelerometer: [f32; 4],
    outside: f32,
    /// Part of the day at the fleet's start.
    day: f64,
    firmware: f32,
}

impl Build {
    fn new(dice: &mut Dice) -> Self {
        let tyres = 32.5 + 0.5 * dice.bell();
        let day = f64::from(dice.unit());
        let outside = dice.between(2.0, 28.0);
        Build {
            mass: MASS * (1.0 + 0.06 * dice.bell()),
            drag: DRAG * (1.0 + 0.04 * dice.bell()),
            eager: dice.between(0.75, 1.15),
            auxiliary: 700.0 + 150.0 * dice.bell() + 25.0 * (outside - 20.0).abs(),
            resistance: 0.06 * (1.0 + 0.06 * dice.bell()),
            volts: 0.5 * dice.bell(),
            vibration: 100.0 * (1.0 + 0.012 * dice.bell()),
            flow: 3.8 * (1.0 + 0.015 * dice.bell()),
            coolant: 1.0 * dice.bell(),
            tyre: std::array::from_fn(|_| tyres + 0.3 * dice.bell()),
            accelerometer: std::array::from_fn(|_| 1.0 + 0.04 * dice.bell()),
            outside,
            day,
            firmware: FIRMWARE[usize::from(dice.chance(0.12))],
        }
    }
}

/// The lags of one tick's length: how much of a difference is left after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    ticks: u32,
    tick: f32,
    throttle: f32,
    coolant: f32,
    coolant_parked: f32,
    intake: f32,
    tyre: f32,
    rough: Wander,
    wind: Wander,
}

/// An Ornstein–Uhlenbeck process of mean 0 and variance 1, exact for one length of step.
#[derive(Debug, Clone, Copy)]
struct Wander {
    keep: f32,
    kick: f32,
}

impl Wander {
    fn new(seconds: f64, tau: f64) -> Self {
        let keep = left_after(seconds, tau);
        Wander { keep, kick: (1.0 - keep * keep).sqrt() }
    }

    fn step(self, value: f32, dice: &mut Dice) -> f32 {
        value * self.keep + self.kick * dice.bell()
    }
}

impl Clock {
    /// For readings `seconds` apart.
    pub fn new(seconds: f64) -> Self {
        let ticks = (seconds / TICK - 1e-9).ceil().max(1.0);
        let tick = seconds / ticks;
        Clock {
            ticks: ticks as u32,
            tick: tick as f32,
            throttle: left_after(tick, 0.8),
            coolant: left_after(tick, 150.0),
            coolant_parked: left_after(tick, 900.0),
            intake: left_after(tick, 25.0),
            tyre: left_after(tick, 400.0),
            rough: Wander::new(tick, 20.0),
            wind: Wander::new(tick, 60.0),
        }
    }
}

/// A healthy car on its way.
#[derive(Debug, Clone)]
pub(crate) struct Drive {
    road: Dice,
    noise: Dice,
    build: Build,
    seconds: f64,
    charge: f64,
    activity: Activity,
    /// Seconds left of the activity, and of the driver's present intention in it.
    left: f32,
    intent_left: f32,
    /// The speed the driver wants, m/s.
    intent: f32,
    speed: f32,
    throttle: f32,
    current: f32,
    volts: f32,
    coolant: f32,
    intake: f32,
    tyre: f32,
    rough: f32,
    wind: f32,
    bump: f32,
    bump_left: f32,
}

impl Drive {
    /// Car number `car` of the fleet of `seed`, somewhere in its day.
    pub fn new(seed: u64, car: u64) -> Self {
        let build = Build::new(&mut Dice::new(seed, car, Purpose::Build));
        let mut road = Dice::new(seed, car, Purpose::Road);
        let activity = match road.unit() {
            x if x < 0.48 => Activity::Town,
            x if x < 0.73 => Activity::Motorway,
            x if x < 0.80 => Activity::Idle,
            x if x < 0.90 => Activity::Parked,
            _ => Activity::Charging,
        };
        let charge = match activity {
            Activity::Charging => road.between(0.2, 0.85),
            _ => road.between(0.3, 0.95),
        };
        let mut drive = Drive {
            noise: Dice::new(seed, car, Purpose::Noise),
            seconds: 0.0,
            charge: f64::from(charge),
            activity,
            left: 0.0,
            intent_left: 0.0,
            intent: 0.0,
            speed: 0.0,
            throttle: 0.0,
            current: 0.0,
            volts: 180.0 + 80.0 * charge,
            coolant: 0.0,
            intake: 0.0,
            tyre: 0.0,
            rough: road.bell(),
            wind: road.bell(),
            bump: 0.0,
            bump_left: 0.0,
            build,
            road,
        };
        drive.begin(activity);
        // It has been at it for a while: part of the time is over, and temperatures are where they tend to.
        drive.left *= drive.road.unit();
        drive.choose_intent();
        drive.speed = drive.intent;
        drive.throttle = drive.demand(0.0).clamp(0.0, 1.0);
        drive.draw(0.0);
        drive.coolant = drive.coolant_tends_to();
        drive.intake = drive.intake_tends_to();
        drive.tyre = drive.tyre_tends_to();
        drive
    }

    /// Speed, m/s.
    pub fn speed(&self) -> f32 {
        self.speed
    }

    /// Sets a standing car going.
    pub fn set_going(&mut self) {
        if !matches!(self.activity, Activity::Town | Activity::Motorway) {
            self.begin(Activity::Town);
            self.intent = self.road.between(9.0, 14.0);
            self.intent_left = self.road.between(20.0, 40.0);
        }
    }

    /// Lets one step of `clock` pass. With `keep_going` the car neither parks nor charges at the end of what it does.
    pub fn advance(&mut self, clock: &Clock, keep_going: bool) {
        for _ in 0..clock.ticks {
            self.tick(clock, keep_going);
        }
    }

    fn tick(&mut self, clock: &Clock, keep_going: bool) {
        let h = clock.tick;
        self.seconds += f64::from(h);
        self.left -= h;
        let charging = self.activity == Activity::Charging;
        let (full, empty) = (charging && self.charge > 0.93, !charging && !keep_going && self.charge < NO_CHARGE);
        if self.left <= 0.0 || full || empty {
            self.next_activity(keep_going);
        }
        self.intent_left -= h;
        if self.intent_left <= 0.0 {
            self.choose_intent();
        }

        let want = ((self.intent - self.speed) / 3.5).clamp(-2.0, 1.5 * self.build.eager);
        let standing = self.intent == 0.0 && self.speed < 0.4;
        if standing {
            self.speed = 0.0;
            self.throttle = 0.0;
            self.draw(0.0);
        } else {
            let pedal = self.demand(want).clamp(0.0, 1.0);
            self.throttle = pedal + (self.throttle - pedal) * clock.throttle;
            let resistance = self.resistance();
            let brake = (-want - resistance).max(0.0);
            let push = self.throttle * self.push_at_full();
            self.speed = (self.speed + h * (push - resistance - brake)).max(0.0);
            self.draw(brake);
        }
        self.charge = (self.charge - f64::from(self.current * h) / CAPACITY).clamp(0.0, 1.0);

        let keep = if self.activity.is_on() { clock.coolant } else { clock.coolant_parked };
        let tends = self.coolant_tends_to();
        self.coolant = tends + (self.coolant - tends) * keep;
        let tends = self.intake_tends_to();
        self.intake = tends + (self.intake - tends) * clock.intake;
        let tends = self.tyre_tends_to();
        self.tyre = tends + (self.tyre - tends) * clock.tyre;
        self.rough = clock.rough.step(self.rough, &mut self.road);
        self.wind = clock.wind.step(self.wind, &mut self.road);
        if self.bump_left > 0.0 {
            self.bump_left -= h;
        } else if self.road.chance(h / 14.0) {
            self.bump_left = 0.4;
            self.bump = self.road.between(1.3, 2.4);
        }
    }

    fn next_activity(&mut self, keep_going: bool) {
        let x = self.road.unit();
        let next = if keep_going {
            if x < 0.7 { Activity::Town } else { Activity::Motorway }
        } else if self.charge < LOW_CHARGE {
            Activity::Charging
        } else {
            match self.activity {
                Activity::Town if x < 0.35 => Activity::Motorway,
                Activity::Town if x < 0.6 => Activity::Idle,
                Activity::Town if x < 0.85 => Activity::Parked,
                Activity::Town if x < 0.9 => Activity::Charging,
                Activity::Motorway if x < 0.15 => Activity::Idle,
                Activity::Motorway if x < 0.2 => Activity::Charging,
                Activity::Idle if x < 0.25 => Activity::Motorway,
                Activity::Idle if x < 0.35 => Activity::Parked,
                _ => Activity::Town,
            }
        };
        self.begin(next);
    }

    fn begin(&mut self, activity: Activity) {
        let (low, high) = match activity {
            Activity::Town => (240.0, 900.0),
            Activity::Motorway => (420.0, 1_500.0),
            Activity::Idle => (20.0, 90.0),
            Activity::Parked => (180.0, 1_200.0),
            Activity::Charging => (600.0, 2_700.0),
        };
        self.activity = activity;
        self.left = self.road.between(low, high);
        self.intent_left = 0.0;
    }

    fn choose_intent(&mut self) {
        let moving = self.speed > 1.0;
        (self.intent, self.intent_left) = match self.activity {
            // A light or a junction now and then.
            Activity::Town if moving && self.road.chance(0.3) => (0.0, self.road.between(12.0, 35.0)),
            Activity::Town => (self.road.between(7.0, 15.0), self.road.between(15.0, 50.0)),
            Activity::Motorway => (self.road.between(24.0, 35.0), self.road.between(30.0, 120.0)),
            Activity::Idle | Activity::Parked | Activity::Charging => (0.0, f32::INFINITY),
        };
    }

    fn resistance(&self) -> f32 {
        if self.speed > 0.0 { ROLLING + self.build.drag * self.speed * self.speed } else { 0.0 }
    }

    /// Acceleration at full throttle, m/s².
    fn push_at_full(&self) -> f32 {
        EFFICIENCY * FULL_POWER / (self.build.mass * self.speed.max(BASE_SPEED))
    }

    /// The throttle that gives the acceleration `want`; below zero, brakes.
    fn demand(&self, want: f32) -> f32 {
        (want + self.resistance()) / self.push_at_full()
    }

    /// Current and voltage, braking with `brake` m/s².
    fn draw(&mut self, brake: f32) {
        let open = self.open_voltage();
        self.current = match self.activity {
            // Constant current, tapering as the battery fills.
            Activity::Charging if self.speed == 0.0 => -95.0 * ((1.0 - self.charge as f32) * 4.0).min(1.0),
            _ => {
                let auxiliary = if self.activity.is_on() { self.build.auxiliary } else { 60.0 };
                let given_back = (0.55 * brake * self.build.mass * self.speed).min(REGENERATION);
                (self.throttle * FULL_POWER + auxiliary - given_back) / self.volts
            }
        };
        self.volts = open - self.build.resistance * self.current;
    }

    /// Voltage without load: nearly straight in the charge, a little flatter in the middle.
    fn open_voltage(&self) -> f32 {
        let charge = self.charge as f32;
        180.0 + self.build.volts + 80.0 * (charge + 0.3 * charge * (1.0 - charge) * (0.5 - charge))
    }

    fn outside(&self) -> f32 {
        self.build.outside + 5.0 * wave(self.seconds / 86_400.0 + self.build.day)
    }

    fn coolant_tends_to(&self) -> f32 {
        let outside = self.outside();
        match self.activity {
            Activity::Parked => outside,
            // The charger's own cooling takes most of the heat.
            Activity::Charging => outside + 8.0 + self.build.coolant + 0.1 * self.current.abs(),
            _ => {
                // The old firmware starts the fan later.
                let fan = if self.build.firmware == FIRMWARE[1] { 3.0 } else { 0.0 };
                let airflow = 1.0 + self.speed * (1.0 / 45.0);
                outside + 10.0 + fan + self.build.coolant + 0.35 * self.current.abs() / airflow
            }
        }
    }

    fn intake_tends_to(&self) -> f32 {
        let outside = self.outside();
        outside + 0.12 * (self.coolant - outside) / (1.0 + self.speed * (1.0 / 6.0))
    }

    fn tyre_tends_to(&self) -> f32 {
        self.outside() + 0.45 * self.speed
    }

    /// What the sensors read now, with their noise, before their converters.
    pub fn read(&mut self) -> Row {
        let Drive { noise, build, .. } = self;
        let mut row = [0.0; sensor::COUNT];
        let v = self.speed;
        let rolls = v > 0.05;
        let on = if self.activity.is_on() { 1.0 } else { 0.0 };
        row[sensor::COOLANT] = self.coolant + 0.25 * noise.bell();
        row[sensor::INTAKE_TEMP] = self.intake + 0.2 * noise.bell();
        let fan = if self.coolant > 50.0 { 3.0 * on } else { 0.0 };
        row[sensor::INTAKE_FLOW] =
            (build.flow * v * (1.0 + 0.02 * self.wind) + 2.0 * on + fan + 0.5 * noise.bell()).clamp(0.0, 250.0);
        row[sensor::BATTERY] = (self.charge as f32 + 0.0008 * noise.bell()).clamp(0.0, 1.0);
        row[sensor::VOLTAGE] = self.volts + 0.3 * noise.bell();
        row[sensor::CURRENT] = self.current + 0.6 * noise.bell();
        row[sensor::SPEED] = if rolls { (v + 0.08 * noise.bell()).max(0.0) } else { 0.0 };
        row[sensor::VIBRATION] = (build.vibration * v * (1.0 + 0.008 * noise.bell())
            + 15.0 * on
            + 60.0 * self.throttle
            + 4.0 * noise.bell())
        .max(0.0);
        row[sensor::THROTTLE] =
            if self.throttle > 0.0 { (self.throttle + 0.003 * noise.bell()).clamp(0.0, 1.0) } else { 0.0 };
        // About 1 psi for 6 °C.
        let warm = 0.16 * (self.tyre - 20.0);
        for (n, base) in build.tyre.iter().enumerate() {
            row[sensor::TYRES + n] = base + warm + 0.12 * noise.bell();
        }
        let usual = match self.activity {
            Activity::Motorway => 0.022,
            _ => 0.045,
        };
        // The road is common to the wheels; what each makes of it is not.
        let road = usual * v * (1.0 + 0.25 * self.rough + 0.15 * noise.bell()).max(0.2);
        let bump = if self.bump_left > 0.0 { self.bump * (v * (1.0 / 6.0)).min(1.0) } else { 0.0 };
        for (n, gain) in build.accelerometer.iter().enumerate() {
            let shake = road * (1.0 + 0.12 * noise.bell()) + bump * (1.0 + 0.07 * noise.bell());
            row[sensor::ACCELEROMETERS + n] = (gain * (0.06 + shake) + 0.015 * noise.bell()).max(0.0);
        }
        row[sensor::FIRMWARE] = build.firmware;
        row
    }
}
